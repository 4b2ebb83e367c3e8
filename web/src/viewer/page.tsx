// The self-contained page: the viewer around the explanation that stands in the page itself.

import { render } from "preact";
import { formatNumber } from "../shared/format";
import "../shared/theme.css";
import { applyTheme, chooseTheme, useDark } from "../shared/theme";
import type { Explanation } from "../shared/types";
import { ExplanationViewer } from "./ExplanationViewer";
import "./page.css";

function read(): Explanation | null {
  const text = document.getElementById("explanation")?.textContent ?? "null";
  return JSON.parse(text) as Explanation | null;
}

/** The optimiser by its first setting, the learning rate: Adam(lr=0.001, …). */
const shorten = (optimizer: string): string => optimizer.replace(/^([^(]+\([^,()]+), .*\)$/s, "$1, …)");

function Page({ explanation }: { explanation: Explanation }) {
  const dark = useDark();
  const facts = [
    explanation.step === null ? "" : `step ${explanation.step}`,
    shorten(explanation.optimizer ?? ""),
    `engine ${explanation.engine}`,
  ];
  return (
    <>
      <a class="skip" href="#explained">
        Skip to the explanation
      </a>
      <header>
        <div title={explanation.optimizer ?? ""}>
          <h1>
            <span aria-hidden="true" class="mark">
              ∂
            </span>{" "}
            {explanation.model}, one step of training
          </h1>
          <p>
            loss <b class="number">{formatNumber(explanation.loss, 6)}</b> · {facts.filter(Boolean).join(" · ")}
          </p>
        </div>
        <button type="button" onClick={() => chooseTheme(dark ? "light" : "dark")}>
          {dark ? "Light" : "Dark"}
        </button>
      </header>
      <main id="explained" tabIndex={-1}>
        <ExplanationViewer explanation={explanation} />
      </main>
    </>
  );
}

applyTheme();
const explanation = read();
const root = document.getElementById("page");
if (root) {
  if (explanation) {
    document.title = `${explanation.model}, loss ${formatNumber(explanation.loss, 6)} · chainrule`;
    render(<Page explanation={explanation} />, root);
  } else root.textContent = "This page holds no explanation. cr.explain(…).save(path) writes one.";
}

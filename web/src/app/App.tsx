import { useEffect, useRef, useState } from "preact/hooks";
import { chooseTheme, storedTheme, type Theme } from "../shared/theme";
import { ExplorerPage } from "./explorer/ExplorerPage";
import { PlaygroundPage } from "./playground/PlaygroundPage";
import { href, type Route, useRoute } from "./route";
import { RunPage } from "./run/RunPage";
import { RunsPage } from "./runs/RunsPage";

export function App() {
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const view = route.view + ("name" in route ? route.name : "");
  const first = useRef(true);

  useEffect(() => {
    document.title = `${title(route)} · chainrule`;
    if (!first.current) main.current?.focus(); // a new view is read out from its beginning
    first.current = false;
    window.scrollTo(0, 0);
  }, [view]);

  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault(); // what stands behind # is the view
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={href.runs()}>
          <Mark />
          chainrule
        </a>
        <nav aria-label="Views">
          <a href={href.runs()} aria-current={route.view === "playground" ? undefined : "page"}>
            Runs
          </a>
          <a href={href.playground()} aria-current={route.view === "playground" ? "page" : undefined}>
            Playground
          </a>
        </nav>
        <ThemeSwitch />
      </header>
      <main id="content" ref={main} tabIndex={-1}>
        <View route={route} />
      </main>
    </>
  );
}

function View({ route }: { route: Route }) {
  switch (route.view) {
    case "runs":
      return <RunsPage selected={route.selected} />;
    case "run":
      return <RunPage key={route.name} name={route.name} />;
    case "step":
      return <ExplorerPage key={route.name} name={route.name} step={route.step} row={route.row} />;
    case "playground":
      return <PlaygroundPage />;
    case "unknown":
      return (
        <div class="page">
          <h1>There is nothing here</h1>
          <p>
            No view is called <code>{route.path}</code>. <a href={href.runs()}>See the runs.</a>
          </p>
        </div>
      );
  }
}

function title(route: Route): string {
  switch (route.view) {
    case "runs":
      return "Runs";
    case "run":
      return route.name;
    case "step":
      return `${route.name}, step ${route.step ?? ""}`;
    case "playground":
      return "Playground";
    case "unknown":
      return "Not found";
  }
}

/** Two inputs, one unit, one output. */
function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <path d="M8 9 16 16M8 23 16 16M16 16h8" class="mark-lines" />
      <circle cx="7" cy="8" r="4" class="mark-in" />
      <circle cx="7" cy="24" r="4" class="mark-in" />
      <circle cx="17" cy="16" r="5" class="mark-out" />
      <circle cx="27" cy="16" r="3" class="mark-out" />
    </svg>
  );
}

const THEMES: Theme[] = ["system", "light", "dark"];
const SIGNS: Record<Theme, string> = { system: "◐", light: "☀", dark: "☾" };

function ThemeSwitch() {
  const [theme, setTheme] = useState(storedTheme);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] as Theme;
  return (
    <button
      class="quiet theme"
      aria-label={`Colours: ${theme}. Change to ${next}.`}
      title={`Colours: ${theme}`}
      onClick={() => {
        chooseTheme(next);
        setTheme(next);
      }}
    >
      <span aria-hidden="true">{SIGNS[theme]}</span>
    </button>
  );
}

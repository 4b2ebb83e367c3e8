// Which view is shown: written behind the # of the address, so that the browser's back button works.

import { useEffect, useState } from "preact/hooks";

export type Route =
  | { view: "runs"; selected: string[] | null }
  | { view: "run"; name: string }
  | { view: "step"; name: string; step: number | null; row: number | null }
  | { view: "playground" }
  | { view: "unknown"; path: string };

export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  const parameters = new URLSearchParams(query);
  if (parts.length === 0) return { view: "runs", selected: null };
  if (parts[0] === "playground" && parts.length === 1) return { view: "playground" };
  if (parts[0] === "runs" && parts.length === 1) {
    return { view: "runs", selected: parameters.has("select") ? parameters.getAll("select").filter(Boolean) : null };
  }
  if (parts[0] === "runs" && parts.length === 2) return { view: "run", name: parts[1] as string };
  if (parts[0] === "runs" && parts[2] === "step" && parts.length <= 4) {
    return { view: "step", name: parts[1] as string, step: whole(parts[3]), row: whole(parameters.get("row")) };
  }
  return { view: "unknown", path };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function whole(text: string | null | undefined): number | null {
  return text != null && /^\d+$/.test(text) ? Number(text) : null;
}

export const href = {
  runs: (selected?: string[]) =>
    selected
      ? `#/runs?${selected.length ? selected.map((name) => `select=${encodeURIComponent(name)}`).join("&") : "select="}`
      : "#/runs",
  run: (name: string) => `#/runs/${encodeURIComponent(name)}`,
  step: (name: string, step: number | null, row: number | null = null) =>
    `#/runs/${encodeURIComponent(name)}/step${step === null ? "" : `/${step}`}${row === null ? "" : `?row=${row}`}`,
  playground: () => "#/playground",
};

export function go(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const update = (): void => setHash(location.hash);
    window.addEventListener("hashchange", update);
    return () => window.removeEventListener("hashchange", update);
  }, []);
  return parseRoute(hash);
}

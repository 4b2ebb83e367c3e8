// What the browser asks of `chainrule ui`. The token is a cookie that the browser sends by itself.

import type {
  Diagnosis,
  Explanation,
  HistoryRow,
  Playground,
  PlaygroundOptions,
  PlaygroundState,
  RunDetail,
  RunSummary,
  Snapshot,
  Status,
} from "./types";

/** The server said no, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

async function request<T>(method: "GET" | "POST" | "DELETE", path: string, body?: unknown): Promise<T> {
  let response: Response;
  const init: RequestInit = { method, credentials: "same-origin" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json" };
  }
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, "chainrule ui does not answer. Is it still running?");
  }
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

async function reason(response: Response): Promise<string> {
  if (response.status === 401) return "The token is missing or old. Open the address that chainrule ui printed.";
  try {
    const body: unknown = await response.json();
    if (body !== null && typeof body === "object" && "error" in body) return String(body.error);
  } catch {
    // No JSON: the status has to do.
  }
  return `The server answered ${response.status} ${response.statusText}.`;
}

const of = (name: string): string => `/api/runs/${encodeURIComponent(name)}`;
const after = (step: number | null): string => (step === null ? "" : `?after=${step}`);

export const api = {
  runs: () => request<{ root: string; runs: RunSummary[] }>("GET", "/api/runs"),
  run: (name: string) => request<RunDetail>("GET", of(name)),
  history: (name: string, step: number | null = null) =>
    request<{ rows: HistoryRow[] }>("GET", `${of(name)}/history${after(step)}`),
  snapshots: (name: string, step: number | null = null) =>
    request<{ snapshots: Snapshot[] }>("GET", `${of(name)}/snapshots${after(step)}`),
  diagnoses: (name: string) => request<{ diagnoses: Diagnosis[] }>("GET", `${of(name)}/diagnoses`),
  log: (name: string) => request<{ lines: string[] }>("GET", `${of(name)}/log`),
  explain: (name: string, step: number, row: number | null) =>
    request<Explanation>("POST", `${of(name)}/explain`, { step, row }),
  datasets: () => request<{ datasets: { id: string; title: string }[] }>("GET", "/api/playground/datasets"),
  playground: (options: PlaygroundOptions) => request<Playground>("POST", "/api/playground", options),
  playgroundStep: (id: string, steps: number, explain = false) =>
    request<PlaygroundState>("POST", `/api/playground/${id}/step`, explain ? { steps, explain } : { steps }),
  playgroundTo: (id: string, step: number, explain = false) =>
    request<PlaygroundState>("POST", `/api/playground/${id}/to`, explain ? { step, explain } : { step }),
  playgroundEnd: (id: string) => request<void>("DELETE", `/api/playground/${id}`),
};

export interface RunNews {
  history?: (rows: HistoryRow[]) => void;
  snapshots?: (snapshots: Snapshot[]) => void;
  diagnoses?: (diagnoses: Diagnosis[]) => void;
  status?: (status: Status, reason: string) => void;
}

/** Hear what happens in a run until it ends. Returns what stops listening. */
export function listen(name: string, step: number | null, news: RunNews): () => void {
  const source = new EventSource(`${of(name)}/events${after(step)}`);
  const on = <T>(event: string, handle: (data: T) => void): void => {
    source.addEventListener(event, (message) => handle(JSON.parse((message as MessageEvent<string>).data) as T));
  };
  on<{ rows: HistoryRow[] }>("history", (data) => news.history?.(data.rows));
  on<{ snapshots: Snapshot[] }>("snapshots", (data) => news.snapshots?.(data.snapshots));
  on<{ diagnoses: Diagnosis[] }>("diagnoses", (data) => news.diagnoses?.(data.diagnoses));
  on<{ status: Status; reason: string }>("status", (data) => {
    news.status?.(data.status, data.reason);
    if (data.status !== "running") source.close(); // otherwise the browser would ask again for ever
  });
  return () => source.close();
}

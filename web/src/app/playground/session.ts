// A playground on the server: made from options, moved forwards and backwards, played.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, api } from "../../shared/api";
import { toNumber } from "../../shared/format";
import type { Explanation, Playground, PlaygroundOptions, PlaygroundState } from "../../shared/types";
import { messageOf } from "../parts";

export interface Losses {
  step: number;
  loss: number;
  test: number;
}

export interface Session {
  data: Playground["data"] | null;
  state: PlaygroundState | null;
  losses: Losses[];
  /** The farthest step that was made. */
  farthest: number;
  playing: boolean;
  failure: string | null;
  by: (steps: number) => void;
  to: (step: number) => void;
  play: (on: boolean) => void;
  explain: () => Promise<Explanation>;
}

export function usePlayground(options: PlaygroundOptions, speed: number): Session {
  const [made, setMade] = useState<Playground | null>(null);
  const [state, setState] = useState<PlaygroundState | null>(null);
  const [losses, setLosses] = useState<Losses[]>([]);
  const [playing, setPlaying] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  const id = useRef<string | null>(null);
  const queue = useRef<Promise<unknown>>(Promise.resolve());
  const text = JSON.stringify(options);
  const current = useRef(text);
  current.current = text;

  /** Requests go out one after another, so that steps are made in the order in which they were asked for. */
  const ask = useCallback(<T>(request: () => Promise<T>): Promise<T> => {
    const answer = queue.current.then(request, request);
    queue.current = answer.catch(() => undefined);
    return answer;
  }, []);

  const show = useCallback((found: PlaygroundState): void => {
    setState(found);
    setFailure(null);
    setLosses((known) => withLosses(known, found));
  }, []);

  const make = useCallback(async (): Promise<void> => {
    const wanted = current.current;
    if (id.current) void api.playgroundEnd(id.current).catch(() => undefined);
    id.current = null;
    const answer = await api.playground(JSON.parse(wanted) as PlaygroundOptions);
    if (wanted !== current.current) {
      void api.playgroundEnd(answer.id).catch(() => undefined); // chosen otherwise meanwhile
      return;
    }
    id.current = answer.id;
    setMade(answer);
    setLosses([]);
    show(answer.state);
  }, []);

  const fail = useCallback((error: unknown): void => {
    setPlaying(false);
    setFailure(messageOf(error));
  }, []);

  useEffect(() => {
    setPlaying(false);
    // A slider that is drawn, or a word that is typed, makes one network when it rests, not one at each move.
    const timer = setTimeout(() => ask(make).catch(fail), made ? 120 : 0);
    return () => clearTimeout(timer);
  }, [text]);

  useEffect(
    () => () => {
      if (id.current) void api.playgroundEnd(id.current).catch(() => undefined);
    },
    [],
  );

  /** A request to the network; one that the server has dropped meanwhile is made anew first. */
  const send = useCallback(async <T>(request: (id: string) => Promise<T>): Promise<T> => {
    if (id.current === null) await make();
    try {
      return await request(id.current as string);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      id.current = null;
      await make();
      return request(id.current as unknown as string);
    }
  }, []);

  const by = useCallback((steps: number): void => {
    setPlaying(false);
    ask(() => send((id) => api.playgroundStep(id, steps))).then(show, fail);
  }, []);
  const to = useCallback((step: number): void => {
    setPlaying(false);
    ask(() => send((id) => api.playgroundTo(id, step))).then(show, fail);
  }, []);

  useEffect(() => {
    if (!playing) return undefined;
    let stopped = false;
    const turn = async (): Promise<void> => {
      while (!stopped) {
        const found = await ask(() => send((id) => api.playgroundStep(id, speed)));
        if (stopped) return;
        show(found);
        await new Promise((resolve) => setTimeout(resolve, speed === 1 ? 120 : 30));
      }
    };
    turn().catch(fail);
    return () => {
      stopped = true;
    };
  }, [playing, speed]);

  const explain = useCallback(async (): Promise<Explanation> => {
    setPlaying(false);
    const found = await ask(() => send((id) => api.playgroundStep(id, 0, true)));
    if (!found.explanation) throw new Error("The server sent no explanation of this step.");
    return found.explanation;
  }, []);

  return {
    data: made?.data ?? null,
    state,
    losses,
    farthest: losses[losses.length - 1]?.step ?? 0,
    playing,
    failure,
    by,
    to,
    play: setPlaying,
    explain,
  };
}

/** The losses seen so far, by step. */
function withLosses(known: Losses[], state: PlaygroundState): Losses[] {
  const news = { step: state.step, loss: toNumber(state.loss), test: toNumber(state.test_loss) };
  const last = known[known.length - 1];
  if (!last || last.step < news.step) return [...known, news];
  if (known.some(({ step }) => step === news.step)) return known;
  return [...known, news].sort((a, b) => a.step - b.step);
}

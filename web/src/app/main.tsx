import "../shared/theme.css";
import "uplot/dist/uPlot.min.css";
import "./app.css";
import { render } from "preact";
import { applyTheme } from "../shared/theme";
import { App } from "./App";

applyTheme();
render(<App />, document.getElementById("app") as HTMLElement);

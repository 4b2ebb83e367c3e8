export { ExplanationViewer } from "./ExplanationViewer";

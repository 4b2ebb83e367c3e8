import { createHash } from "node:crypto";
import { defineConfig, type Plugin } from "vite";

const PLACEHOLDER = '<script id="explanation" type="application/json">null</script>';

/** Put script and style into the page itself, and forbid it everything else: any other script, any connection. */
function selfContained(): Plugin {
  return {
    name: "self-contained-page",
    enforce: "post",
    generateBundle(_options, bundle) {
      const files = Object.entries(bundle);
      const text = (ending: string): string =>
        files
          .filter(([name]) => name.endsWith(ending))
          .map(([, file]) => (file.type === "chunk" ? file.code : String(file.source)))
          .join("\n");
      const script = text(".js").trim().replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
      const style = text(".css").trim().replaceAll("</style", "<\\/style");
      const hash = createHash("sha256").update(script).digest("base64");
      const policy = `default-src 'none'; script-src 'sha256-${hash}'; style-src 'unsafe-inline'; img-src data:`;
      for (const [name, file] of files) {
        if (name.endsWith(".html") && file.type === "asset") {
          const page = String(file.source)
            .replace(/\s*<script type="module"[^>]*><\/script>/, "")
            .replace(/\s*<link rel="stylesheet"[^>]*>/, "")
            .replace("<title>", () => `<meta http-equiv="Content-Security-Policy" content="${policy}" />\n    <title>`)
            .replace("</head>", () => `<style>${style}</style>\n  </head>`)
            .replace(PLACEHOLDER, () => `${PLACEHOLDER}\n    <script type="module">${script}</script>`);
          if (page.split(PLACEHOLDER).length !== 2 || /<(script|link)[^>]+(src|href)="(?!data:)/.test(page)) {
            throw new Error("The page would not be self-contained.");
          }
          file.source = page;
        } else delete bundle[name];
      }
    },
  };
}

// One template beside the Python that fills it. Its folder holds other files: nothing there may be emptied.
export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    outDir: process.env["CHAINRULE_PAGE"] ?? "../src/chainrule/explanation",
    emptyOutDir: false,
    modulePreload: false,
    cssCodeSplit: false,
    target: "es2022",
    chunkSizeWarningLimit: 1000,
    rolldownOptions: { input: "page.html" },
  },
  plugins: [selfContained()],
});

import { defineConfig } from "vite";

const address = new URL(process.env["CHAINRULE_UI"] ?? "http://127.0.0.1:8765/");

// The app. File names carry no hash and no time, so that a rebuild from the same sources gives the same bytes:
// `npm run verify` compares them with the files that are committed and shipped.
export default defineConfig({
  base: "./",
  build: {
    outDir: process.env["CHAINRULE_STATIC"] ?? "../src/chainrule/ui/static",
    emptyOutDir: true,
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    target: "es2022",
    chunkSizeWarningLimit: 1000,
    rolldownOptions: {
      output: {
        entryFileNames: "assets/app.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  server: {
    // `npm run dev` shows the sources live, with the data of a `chainrule ui` whose address is in CHAINRULE_UI.
    proxy: {
      "/api": {
        target: address.origin,
        changeOrigin: true,
        headers: { origin: address.origin, authorization: `Bearer ${address.searchParams.get("token") ?? ""}` },
      },
    },
  },
});

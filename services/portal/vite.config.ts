import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const generated = here("../../gen/typescript");

/** What the generated TypeScript imports is installed here, not above it. */
const runtime: Plugin = {
  name: "runtime-of-generated",
  enforce: "pre",
  resolveId(source, importer) {
    if (importer?.startsWith(generated) && source.startsWith("@bufbuild/")) {
      return this.resolve(source, here("src/main.tsx"), { skipSelf: true });
    }
    return null;
  },
};

export default defineConfig({
  root: here("."),
  base: "/portal/",
  plugins: [runtime],
  resolve: { alias: { "@gen": generated } },
  build: {
    target: "es2022",
    // Browsers that know light-dark(), on which the colours are built.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    emptyOutDir: true,
    // The page's policy allows no inline resource.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  logLevel: "warn",
});

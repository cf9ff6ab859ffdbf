import {defineConfig} from 'vite';

// Three files with fixed names: the program embeds them, and their ETags say when they changed.
export default defineConfig({
  esbuild: {legalComments: 'none'},
  build: {
    modulePreload: false,
    target: 'es2022',
    rollupOptions: {output: {entryFileNames: 'app.js', assetFileNames: 'app[extname]', inlineDynamicImports: true}},
  },
});

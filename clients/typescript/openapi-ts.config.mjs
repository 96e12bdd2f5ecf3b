// `make types` writes src/types.gen.ts with this.
export default {
  input: process.env.UPLIFT_OPENAPI,
  output: { path: process.env.UPLIFT_TYPES, entryFile: false },
  plugins: ["@hey-api/typescript"],
};

// What JavaScript is checked for, beside the types (tsconfig.json).

import js from "@eslint/js";
import imports from "eslint-plugin-import-x";
import globals from "globals";

const STATIC = "src/btrfs_atlas/explorer/static";

/** The folders of the page from the bottom up: each may import from those before it. */
const FOLDERS = ["vendor", "ui", "data", "map", "panels", "app"];

/** The map and the panels stand beside each other. */
const BESIDE = { panels: ["map"] };

const zones = FOLDERS.map((folder, index) => ({
  target: `${STATIC}/${folder}`,
  from: [...FOLDERS.slice(index + 1), ...(BESIDE[folder] ?? [])].map(
    (above) => `${STATIC}/${above}`,
  ),
  message: `${folder}/ knows nothing of that`,
})).filter(({ from }) => from.length > 0);

export default [
  { ignores: [`${STATIC}/vendor/`, "demo/", ".venv/", "build/"] },
  js.configs.recommended,
  {
    files: ["**/*.js"],
    plugins: { import: imports },
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      complexity: ["error", 10],
      "consistent-return": "error",
      curly: "error",
      eqeqeq: "error",
      "max-depth": ["error", 3],
      "max-len": ["error", { code: 100, ignorePattern: "@import" }],
      "max-lines": ["error", 500],
      "max-params": ["error", 4],
      "no-else-return": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-param-reassign": "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "text gets into the page by el() alone" },
        { property: "outerHTML", message: "text gets into the page by el() alone" },
        { property: "insertAdjacentHTML", message: "text gets into the page by el() alone" },
      ],
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-unmodified-loop-condition": "error",
      "no-use-before-define": ["error", { functions: false }],
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
      "require-atomic-updates": "error",
      "import/extensions": ["error", "always"],
      "import/no-cycle": "error",
      "import/no-default-export": "error",
      "import/no-mutable-exports": "error",
      "import/no-self-import": "error",
      "import/no-unresolved": ["error", { ignore: ["^node:"] }],
      "import/order": [
        "error",
        {
          alphabetize: { order: "asc" },
          groups: ["builtin", "external", "internal", "parent", "sibling"],
          named: true,
          pathGroups: [{ pattern: "#explorer/**", group: "internal" }],
        },
      ],
    },
  },
  {
    files: [`${STATIC}/**/*.js`],
    languageOptions: { globals: globals.browser },
    rules: { "import/no-restricted-paths": ["error", { basePath: ".", zones }] },
  },
  {
    files: ["tests/javascript/**/*.js"],
    languageOptions: { globals: globals.node },
    rules: { "import/extensions": "off" },
  },
  {
    files: ["tests/javascript/in-page/*.js"],
    languageOptions: { globals: globals.browser },
    rules: { "import/no-default-export": "off" },
  },
  {
    files: ["eslint.config.js"],
    rules: {
      "import/extensions": "off",
      "import/no-default-export": "off",
      "import/no-unresolved": "off",
    },
  },
];

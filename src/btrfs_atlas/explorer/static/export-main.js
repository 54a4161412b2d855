// The page as `btrfs-atlas export-html` writes it.

import { start } from "./app.js";
import { EmbeddedSource } from "./embedded.js";

start(EmbeddedSource);

// The page as `btrfs-atlas export-html` writes it.

import { start } from "./app/start.js";
import { EmbeddedSource } from "./data/embedded-source.js";

start(EmbeddedSource);

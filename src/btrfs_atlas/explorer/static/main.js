// The page as `btrfs-atlas serve` serves it.

import { start } from "./app.js";
import { LiveSource } from "./source.js";

start(LiveSource);

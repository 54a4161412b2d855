// The page as `btrfs-atlas serve` serves it.

import { start } from "./app/start.js";
import { ServerSource } from "./data/server-source.js";

start(ServerSource);

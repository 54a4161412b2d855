// The page as `btrfs-atlas serve` serves it.

// These are imported by others, deep below: named here, they come at once instead of one by one.
import "./vendor/leaflet/leaflet-src.esm.js";
import "./pictures.js";
import "./words.js";

import { start } from "./app.js";
import { LiveSource } from "./source.js";

start(new LiveSource());

// What the parts of the page share.

import type { Filesystem, MapSettings, Source } from "../data/types.js";
import type { AtlasMap } from "../map/atlas-map.js";
import type { Tooltip } from "../panels/tooltip.js";

export interface Context {
  source: Source;
  map: AtlasMap;
  tooltip: Tooltip;
  /** What the map shows. */
  settings: () => MapSettings;
  /** The latest answer about the filesystem as a whole. */
  filesystem: () => Filesystem;
  /** The server has read something for an answer, and may have met damage. */
  onAnswer: () => void;
}

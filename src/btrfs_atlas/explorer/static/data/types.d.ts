// The shapes of the data that the server sends, and of what the page makes of it.
//
// Numbers that can exceed 2^53 are strings of digits: addresses, generations, numbers of inodes and
// trees. Sizes are bytes. tests/test_javascript.py checks these shapes against real answers.

/** A pixel of the map at a zoom; the whole map has 2^(8 + z) rows and columns. */
export interface Pixel {
  z: number;
  row: number;
  column: number;
}

/** What the map shows: which addresses, along which curve, in which colours. */
export interface MapSettings {
  space: string;
  curve: string;
  colour: string;
}

/** The filesystem as a whole (web/overview.py). Sizes are those on the devices, with all copies. */
export interface Filesystem {
  label: string;
  fsid: string;
  mounted: boolean;
  path: string;
  sectorsize: number;
  nodesize: number;
  notes: string[];
  /** What could not be read; null if nothing is known to be damaged. */
  damage: string | null;
  generation: string;
  summary: string;
  size: number;
  allocated: number;
  used: number;
  devices: Device[];
  spaces: Record<string, Space>;
  /** By space and curve. */
  labels: Record<string, Record<string, DeviceLabel[]>>;
  curves: string[];
  colours: Choice[];
}

export interface Device {
  devid: number;
  path: string | null;
  size: number;
  allocated: number;
  /** Where it begins on the address line of all devices. */
  start: string;
}

/** An address line: all devices after one another, or the virtual addresses. */
export interface Space {
  /** Bytes. */
  total: string;
  /** The deepest zoom that there are tiles for. */
  max_zoom: number;
}

/** The name of a device on the map; row and column are parts of its height and width, 0 to 1. */
export interface DeviceLabel {
  text: string;
  row: number;
  column: number;
}

/** An entry of a list to choose from. */
export interface Choice {
  name: string;
  title: string;
  /** What it shows, for a tooltip; empty if the title says it all. */
  description: string;
}

/** A picture of the whole map, shown until there are tiles. */
export interface Sketch extends MapSettings {
  url: string;
}

export interface Legend {
  title: string;
  note: string;
  /** Whether the entries are the steps of a scale, the lowest first. */
  scale: boolean;
  /** The part of the block groups that the numbers are about, 0 to 1. */
  read: number;
  entries: LegendEntry[];
}

export interface LegendEntry {
  name: string;
  /** "#rrggbb" */
  colour: string;
  bytes: number;
  used: number;
  hatched: boolean;
}

export type PixelState = "unallocated" | "parity" | "free" | "extent" | "unread" | "lost";

/** What a pixel shows (search/details.py). */
export interface PixelInfo {
  /** Of the first sector, on the address line. */
  address: string;
  bytes: number;
  device: DeviceAddress | null;
  vaddr: string | null;
  group: BlockGroup | null;
  /** Null where a pixel is too large for single extents. */
  extent: Extent | null;
  state: PixelState;
}

/** The same with all that is known about its block group and the owners of its extent. */
export interface PixelDetails extends PixelInfo {
  group: BlockGroupDetails | null;
  owners: Owners | null;
}

export interface DeviceAddress {
  devid: number;
  path: string | null;
  paddr: string;
}

export interface BlockGroup {
  vaddr: string;
  length: number;
  type: string;
  profile: string;
  used: number;
  used_percent: number;
}

export interface BlockGroupDetails extends BlockGroup {
  stripes: DeviceAddress[];
  extents: ExtentSizes | null;
  free: { count: number; bytes: number; largest: number } | null;
  contents: Contents[];
}

export interface ExtentSizes {
  count: number;
  bytes: number;
  largest: number;
  smallest: number;
  average: number;
}

/** How much of a block group extents of one kind take. */
export interface Contents {
  name: string;
  bytes: number;
  count: number;
}

export interface Extent {
  vaddr: string;
  length: number;
  generation: string;
  refs: number;
  kind: string;
  owner: string;
  /** What colourings say of it that its numbers do not: title of the colouring, name of the colour. */
  colours: { title: string; name: string }[];
}

export interface Owners {
  files: FileOwner[];
  /** How many files there are beside those. */
  more: number;
  trees: { tree: string; name: string }[];
  note: string | null;
}

export interface FileOwner {
  subvolume: string;
  subvolume_path: string;
  inode: string;
  path: string;
  offset: string;
}

/** What a query found (search/find.py). */
export interface FindResult {
  query: string;
  kind: string;
  title: string;
  words: string[];
  extents: number;
  bytes: number;
  average: number;
  /** Contiguous ranges of virtual addresses. */
  pieces: number;
  /** Whether the search ended before it had found everything. */
  truncated: boolean;
  /** The address line in equal parts, and which part of each was found, 0 to 1. */
  strip: number[];
  view: Pixel | null;
}

/** An event of the filesystem, or of the connection to the server. */
export type AtlasEvent =
  | { type: "changed"; generation: string; groups: string[] }
  /** More extents have been read. */
  | { type: "loaded" }
  /** The connection broke. */
  | { type: "lost" }
  /** The connection is back; any number of changes may have been missed. */
  | { type: "back" }
  /** Another server answers now, which does not know this page. */
  | { type: "gone" };

/** What the page that is served has from the beginning. */
export interface ServedContents {
  filesystem: Filesystem;
  sketch: Sketch;
}

/** What an exported page has (web/export.py). */
export interface ExportedContents {
  filesystem: Filesystem;
  groups: (BlockGroup | null)[];
  chunks: ExportedChunk[];
  /** By space: virtual address of the block group, start and length on the line, stripe. */
  parts: Record<string, [string, string, string, number | null][]>;
  /** By "space/colour", for each zoom. */
  legends: Record<string, Legend[]>;
  /** PNG files, base64. */
  pictures: string[];
  /** By "space/curve/colour or borders", for each zoom, row by row: the number of the picture. */
  places: Record<string, (number | null)[][]>;
}

/** How a chunk lies on its devices. */
export interface ExportedChunk {
  vaddr: string;
  length: string;
  isStriped: boolean;
  /** Stripes of a row that hold parity. */
  parity: number;
  subStripes: number;
  /** Device and address there. */
  stripes: [number, string][];
}

/** A tile or a layer of marks. */
export interface Picture {
  /** Null if nothing is to be seen on it. */
  url: string | null;
  /** Whether it shows all that there is. */
  complete: boolean;
  /** To be called once the picture is loaded: it frees the memory behind the URL. */
  release?: () => void;
}

/** Layers of marks: borders of block groups; what was found; what has just changed. */
export type Marks = "borders" | "found" | "changed";

/** Where the page gets its data. */
export interface Source {
  /** What it can do. The page hides what it cannot. */
  readonly can: { find: boolean; details: boolean; events: boolean };
  /** The filesystem as it was when the page was made. */
  readonly first: Filesystem;
  readonly sketch: Sketch | null;

  filesystem(): Promise<Filesystem>;
  tile(settings: MapSettings, pixel: Pixel, signal: AbortSignal): Promise<Picture>;
  /** The address of a transparent picture; null if nothing is to be seen on it. */
  marks(kind: Marks, settings: MapSettings, pixel: Pixel, query: string | null): string | null;
  legend(settings: MapSettings, zoom: number, signal: AbortSignal): Promise<Legend>;
  at(settings: MapSettings, pixel: Pixel, signal?: AbortSignal): Promise<PixelInfo>;
  details(settings: MapSettings, pixel: Pixel, signal?: AbortSignal): Promise<PixelInfo | PixelDetails>;
  find(query: string, settings: MapSettings, signal?: AbortSignal): Promise<FindResult>;
  /** Call back for each event, for as long as the page is open. */
  events(callback: (event: AtlasEvent) => void): void;
}

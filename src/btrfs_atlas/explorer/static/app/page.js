// The page: connects the map with the panels, and keeps what the user looks at in the address.

import { isSameLine, isSameSettings, settingsOf } from "../data/settings.js";
import { errorText } from "../data/source-error.js";
import { atZoom, formatView, isSamePixel, parseView } from "../data/view.js";
import { AtlasMap } from "../map/atlas-map.js";
import { Find } from "../panels/find.js";
import { Header } from "../panels/header.js";
import { LegendUpdates } from "../panels/legend-updates.js";
import { Legend } from "../panels/legend.js";
import { Panel } from "../panels/panel.js";
import { SideLayout } from "../panels/side-layout.js";
import { Tooltip } from "../panels/tooltip.js";
import { AddressBar } from "../ui/address-bar.js";
import { byId } from "../ui/elements.js";
import { startKeys } from "../ui/keyboard.js";
import { CurrentFilesystem } from "./current-filesystem.js";
import { Inspection } from "./inspection.js";
import { Search } from "./search.js";

/** @import { AtlasEvent, Filesystem, MapSettings, Pixel, Source } from "../data/types.js" */
/** @import { View } from "../data/view.js" */
/** @import { MapHandlers } from "../map/atlas-map.js" */
/** @import { Progress } from "../map/layers.js" */
/** @import { FindHandlers } from "../panels/find.js" */
/** @import { KeyHandlers } from "../ui/keyboard.js" */
/** @import { Context } from "./context.js" */

const SMALL_SCREEN = matchMedia("(max-width: 700px)");

/** The page, with data of any source. */
export class Page {
  #source;
  #filesystem;
  #settings;
  #addressBar;
  #header;
  #map;
  #tooltip;
  #panel;
  #inspection;
  #find;
  #search;
  #legendUpdates;

  /** @param {Source} source */
  constructor(source) {
    this.#source = source;
    this.#filesystem = new CurrentFilesystem(
      source,
      () => this.#describe(),
      (before) => this.#redraw(before),
    );
    this.#addressBar = new AddressBar((fragment) => this.#apply(parseView(fragment)));
    this.#settings = settingsOf(source.first, parseView(this.#addressBar.fragment));
    this.#header = new Header((choice) => this.#choose(choice));
    this.#map = new AtlasMap(byId("map", HTMLElement), source, this.#mapHandlers());
    this.#tooltip = new Tooltip(
      byId("tooltip", HTMLElement),
      (pixel, signal) => source.at(this.#settings, pixel, signal),
      () => innerWidth - this.#inspection.covered.right,
    );

    const context = this.#context();
    const isSmall = () => SMALL_SCREEN.matches;
    this.#panel = new Panel(byId("panel", HTMLElement), () => this.#closePanel());
    this.#inspection = new Inspection(context, this.#panel, isSmall, (query) =>
      this.#findAndGo(query),
    );

    const results = byId("find-results", HTMLElement);
    this.#find = new Find(byId("find-form", HTMLElement), results, this.#findHandlers());
    this.#search = new Search(context, this.#find, isSmall);

    const legendElement = byId("legend", HTMLElement);
    const legend = new Legend(legendElement);
    legend.fold(SMALL_SCREEN.matches);
    this.#legendUpdates = new LegendUpdates(source, legend, () => ({
      settings: this.#settings,
      zoom: this.#map.viewport.zoom,
    }));
    new SideLayout(results, legendElement, legend);
  }

  /** Show what the address says, and follow what the user does. */
  open() {
    const { can } = this.#source;
    byId("find-form", HTMLElement).hidden = !can.find;
    document.documentElement.classList.toggle("cannot-find", !can.find);
    document.documentElement.classList.toggle("cannot-change", !can.events);
    this.#header.fillLists(this.#filesystem.latest);
    this.#describe();
    this.#listen();
    this.#showFirst(parseView(this.#addressBar.fragment));
  }

  // How the parts are connected

  /** @returns {Context} */
  #context() {
    return {
      source: this.#source,
      map: this.#map,
      tooltip: this.#tooltip,
      settings: () => this.#settings,
      filesystem: () => this.#filesystem.latest,
      onAnswer: () => this.#filesystem.checkDamageSoon(),
    };
  }

  #listen() {
    const { viewport } = this.#map;
    onClick("zoom-in", () => viewport.zoomBy(1));
    onClick("zoom-out", () => viewport.zoomBy(-1));
    onClick("whole", () => viewport.showWhole());
    onClick("about", () => this.#openFilesystem());
    onClick("help", () => helpDialog().showModal());
    startKeys(this.#keyHandlers());
    if (this.#source.can.events) {
      this.#source.events((event) => this.#onEvent(event));
    }
  }

  /** @returns {MapHandlers} */
  #mapHandlers() {
    return {
      onPoint: (pixel, event) => this.#tooltip.point(pixel, event),
      onLeave: () => this.#tooltip.hide(),
      onPick: (pixel) => this.#pick(pixel),
      onMove: () => this.#onMove(),
      onProgress: publishProgress,
    };
  }

  /** @returns {FindHandlers} */
  #findHandlers() {
    return {
      onFind: (query) => this.#findAndGo(query),
      onShow: (pixel) => this.#search.flyTo(pixel),
      onClear: () => this.#clearSearch(),
    };
  }

  /** @returns {KeyHandlers} */
  #keyHandlers() {
    const { viewport } = this.#map;
    return {
      onPan: (right, down) => viewport.pan(right, down),
      onZoom: (levels) => viewport.zoomBy(levels),
      onWhole: () => viewport.showWhole(),
      onFind: () => this.#source.can.find && this.#find.focus(),
      onHelp: () => helpDialog().showModal(),
      onPick: () => this.#pickMiddle(),
      onEscape: () => this.#escape(),
    };
  }

  // What is shown

  /** @param {View} view */
  #showFirst(view) {
    const { sketch } = this.#source;
    this.#drawSettings();
    if (sketch !== null && isSameSettings(sketch, this.#settings)) {
      this.#map.sketch(sketch.url);
    }
    this.#map.viewport.goTo(view.middle);
    this.#search.apply(view);
    this.#inspection.apply(view.picked);
  }

  /**
   * Show a view. Where it does not say what is in the middle, the map stays where it is.
   *
   * @param {View} view
   */
  #apply(view) {
    const { viewport } = this.#map;
    this.#tooltip.hide();
    this.#show(settingsOf(this.#filesystem.latest, view));
    if (view.middle !== null && !isSamePixel(view.middle, viewport.middle)) {
      viewport.goTo(view.middle);
    }
    this.#search.apply(view);
    this.#inspection.apply(view.picked);
  }

  /** @param {MapSettings} settings */
  #show(settings) {
    const isSame = isSameSettings(settings, this.#settings);
    this.#settings = settings;
    if (isSame) {
      this.#header.showSettings(settings);
    } else {
      this.#drawSettings();
    }
  }

  #drawSettings() {
    this.#header.showSettings(this.#settings);
    this.#draw();
    // By the time this is asked for, the map may have been moved to another zoom.
    queueMicrotask(() => this.#legendUpdates.update());
  }

  #draw() {
    const { spaces, labels } = this.#filesystem.latest;
    const { space, curve } = this.#settings;
    this.#map.show(this.#settings, spaces[space].max_zoom, labels[space]?.[curve] ?? []);
  }

  /** @param {Partial<MapSettings>} choice */
  async #choose(choice) {
    const settings = { ...this.#settings, ...choice };
    const isOtherLine = !isSameLine(settings, this.#settings);
    this.#tooltip.hide();
    const pixel = isOtherLine ? await this.#sameExtent(settings) : null;
    if (isOtherLine) {
      this.#inspection.apply(null);
    }
    this.#show(settings);
    if (pixel !== null) {
      this.#map.viewport.goTo(pixel);
    }
    if (isOtherLine && this.#search.query !== null) {
      this.#search.show(this.#search.query, false);
    }
    this.#remember();
  }

  /**
   * Where the extent in the middle of the window lies in another space or on another curve.
   *
   * @param {MapSettings} settings
   */
  async #sameExtent(settings) {
    const { target, middle, isClose } = this.#map.viewport;
    if (!this.#source.can.find || !isClose) {
      return null;
    }
    try {
      const { extent, group } = await this.#source.at(this.#settings, target);
      const query = extent ? `vaddr ${extent.vaddr}` : group && `group ${group.vaddr}`;
      const result = query === null ? null : await this.#source.find(query, settings);
      return result?.view ? atZoom(result.view, middle.z) : null;
    } catch {
      // It is not important enough for a message: the map stays where it is.
      return null;
    }
  }

  // What the user does

  /** @param {Pixel} pixel */
  #pick(pixel) {
    this.#inspection.open(pixel);
    this.#remember();
  }

  #pickMiddle() {
    this.#pick(this.#map.viewport.target);
    this.#panel.focus();
  }

  #openFilesystem() {
    this.#inspection.openFilesystem(() => this.#filesystem.update());
    this.#remember();
  }

  #closePanel() {
    this.#inspection.close();
    this.#remember();
  }

  /** @param {string} query */
  #findAndGo(query) {
    // The panel is about a pixel that the map leaves.
    this.#inspection.close();
    this.#search.show(query, true);
    this.#remember();
  }

  #clearSearch() {
    this.#tooltip.hide();
    this.#search.clear();
    this.#map.viewport.focus();
    this.#remember();
  }

  /** Close one thing: what has the focus, or what lies on top. */
  #escape() {
    if (helpDialog().open) {
      return false;
    }
    this.#tooltip.hide();
    const isInFind = Boolean(document.activeElement?.closest("#find-form, #find-results"));
    if (this.#panel.isOpen && !isInFind) {
      this.#closePanel();
    } else if (this.#find.isOpen || isInFind) {
      this.#clearSearch();
    }
    return true;
  }

  #onMove() {
    this.#legendUpdates.followZoom(this.#map.viewport.zoom);
    this.#addressBar.replaceSoon(() => this.#fragment());
  }

  /** Let the address say what the user has chosen. Back leads to what was there before. */
  #remember() {
    this.#addressBar.push(this.#fragment());
  }

  #fragment() {
    const { middle } = this.#map.viewport;
    const { query } = this.#search;
    return formatView({ ...this.#settings, middle, query, picked: this.#inspection.pixel });
  }

  // What happens to the filesystem

  /** @param {AtlasEvent} event */
  #onEvent({ type }) {
    if (type === "lost") {
      showNotice("The connection to btrfs-atlas is lost. Trying again …");
    } else if (type === "gone") {
      showNotice("btrfs-atlas was started anew. Open the URL that it has printed.");
    } else if (type === "loaded") {
      this.#map.retry();
      this.#legendUpdates.updateSoon();
    } else {
      this.#catchUp(type === "changed");
    }
  }

  /**
   * Show the filesystem as it is now.
   *
   * @param {boolean} isFlashing whether the block groups that have changed flash
   */
  async #catchUp(isFlashing) {
    this.#tooltip.hide();
    try {
      this.#redraw(await this.#filesystem.replace());
    } catch (error) {
      showNotice(errorText(error));
      return;
    }
    showNotice(null);
    if (isFlashing) {
      this.#map.flash();
    }
    this.#inspection.refresh();
  }

  #describe() {
    const { latest } = this.#filesystem;
    this.#header.describe(latest);
    this.#tooltip.newest = latest.generation;
  }

  /** @param {Filesystem} before */
  #redraw(before) {
    if (layoutOf(before) !== layoutOf(this.#filesystem.latest)) {
      this.#draw();
    }
    this.#map.refresh();
    this.#legendUpdates.updateSoon();
    this.#search.refresh();
  }
}

/**
 * What of a filesystem decides where on the map things lie, to compare.
 *
 * @param {Filesystem} filesystem
 */
function layoutOf({ spaces, labels }) {
  return JSON.stringify([spaces, labels]);
}

/**
 * Tell the user something.
 *
 * @param {string|null} text null: it is over
 */
function showNotice(text) {
  const notice = byId("notice", HTMLElement);
  notice.hidden = text === null;
  notice.textContent = text ?? "";
}

/**
 * For tests and benchmarks: how far the map is, and when it first came so far.
 *
 * @param {Progress} progress
 */
function publishProgress(progress) {
  document.documentElement.dataset.tiles = progress;
  if (performance.getEntriesByName(progress).length === 0) {
    performance.mark(progress);
  }
}

function helpDialog() {
  return byId("keys", HTMLDialogElement);
}

/**
 * @param {string} id
 * @param {() => void} action
 */
function onClick(id, action) {
  byId(id, HTMLElement).addEventListener("click", action);
}

// The page: puts the map, its tooltip, panel, legend and find together, for any source.

import { Find } from "./find.js";
import { startKeys } from "./keys.js";
import { Legend } from "./legend.js";
import { AtlasMap } from "./map.js";
import { Panel, filesystemPage, placePage } from "./panel.js";
import { LeftSide } from "./room.js";
import { capitalised, el, errorWords } from "./text.js";
import { startTheme } from "./theme.js";
import { Tooltip } from "./tooltip.js";
import { atZoom, formatView, parseView, samePlace } from "./view.js";

const REMEMBER_MS = 150;
const LEGEND_MS = 400;
const DAMAGE_MS = 5000;
const SMALL_SCREEN = matchMedia("(max-width: 700px)");

/**
 * Start the page.
 *
 * @param {function(new: object, object)} Source where it gets what it shows (source.js,
 *     embedded.js), made of the contents that came with the page
 */
export function start(Source) {
  startTheme(byId("theme"));
  new Page(new Source(JSON.parse(byId("contents").textContent))).open();
}

class Page {
  #source;
  #filesystem;
  #shown = { space: null, curve: null, colour: null };
  #query = null;
  #picked = null;
  #map;
  #tooltip;
  #panel;
  #legend;
  #find;
  #legendZoom = -1;
  #legendAbort = new AbortController();
  #legendTimer = 0;
  #rememberTimer = 0;
  #damageTimer = 0;
  #damageAsked = -DAMAGE_MS;

  constructor(source) {
    this.#source = source;
    this.#filesystem = source.first;
    this.#panel = new Panel(byId("panel"), () => this.#closePanel());
    this.#legend = new Legend(byId("legend"));
    this.#legend.fold(SMALL_SCREEN.matches);
    this.#tooltip = new Tooltip(
      byId("tooltip"),
      (place, signal) => this.#ask("at", place, signal),
      () => innerWidth - this.#coveredByPanel().right,
    );
    this.#find = new Find(byId("find-form"), byId("find-results"), {
      onFind: (query) => this.#findAndGo(query),
      onShow: ({ view }) => this.#flyTo(view),
      onClear: () => this.#clearFound(),
    });
    new LeftSide(byId("find-results"), byId("legend"), this.#legend).watch();
  }

  open() {
    this.#describe();
    this.#fillChoices();
    this.#map = new AtlasMap(byId("map"), this.#source, this.#mapHandlers());
    this.#listen();
    if (this.#source.can.live) {
      this.#source.events((event) => this.#happened(event));
    }
    this.#apply(parseView(location.hash));
  }

  /** Tell something that the user should know; null: it is over. */
  notice(words) {
    const notice = byId("notice");
    notice.hidden = words === null;
    notice.textContent = words ?? "";
  }

  // The parts of the page

  #describe() {
    const { label, path, summary, generation, damage, notes } = this.#filesystem;
    document.title = label || path;
    byId("label").textContent = label || path;
    byId("summary").textContent = summary;
    // It is SVG, which has no property for that.
    byId("warning").toggleAttribute("hidden", !damage && notes.length === 0);
    byId("warning").setAttribute("aria-label", damage ?? "There are notes");
    this.#tooltip.newest = generation;
  }

  #fillChoices() {
    const { spaces, curves, colours } = this.#filesystem;
    fillSelect("space", Object.keys(spaces).map(titled));
    fillSelect("curve", curves.map(titled));
    fillSelect("colour", colours);
    const { can } = this.#source;
    byId("find-form").hidden = !can.find;
    document.documentElement.classList.toggle("cannot-find", !can.find);
    document.documentElement.classList.toggle("cannot-live", !can.live);
  }

  #mapHandlers() {
    return {
      onPoint: (place, event) => this.#tooltip.point(place, event),
      onLeave: () => this.#tooltip.hide(),
      onPick: (place) => this.#pick(place),
      onMoved: () => this.#moved(),
      onProgress: tellProgress,
    };
  }

  #listen() {
    for (const name of ["space", "curve", "colour"]) {
      byId(name).addEventListener("change", ({ target }) => this.#choose({ [name]: target.value }));
    }
    click("zoom-in", () => this.#map.zoomBy(1));
    click("zoom-out", () => this.#map.zoomBy(-1));
    click("whole", () => this.#map.whole());
    click("about", () => this.#openFilesystem());
    click("help", () => byId("keys").showModal());
    addEventListener("popstate", () => this.#followAddress());
    addEventListener("hashchange", () => this.#followAddress());
    startKeys(this.#keyHandlers());
  }

  #keyHandlers() {
    return {
      onPan: (right, down) => this.#map.pan(right, down),
      onZoom: (levels) => this.#map.zoomBy(levels),
      onWhole: () => this.#map.whole(),
      onFind: () => this.#source.can.find && this.#find.focus(),
      onHelp: () => byId("keys").showModal(),
      onPick: () => this.#pickMiddle(),
      onEscape: () => this.#escape(),
    };
  }

  /** Close one thing: what has the focus, or what lies on top. Returns whether that was done. */
  #escape() {
    if (byId("keys").open) {
      return false;
    }
    this.#tooltip.hide();
    const inFind = document.activeElement.closest("#find-form, #find-results") !== null;
    if (this.#panel.isOpen && !inFind) {
      this.#closePanel();
    } else if (this.#find.isOpen || inFind) {
      this.#clearFound();
    }
    return true;
  }

  // What is shown

  /** Show what the address says. What it does not say is the first choice; the view then stays. */
  #apply(view) {
    const { spaces, curves, colours } = this.#filesystem;
    const shown = {
      space: known(view.space, Object.keys(spaces)),
      curve: known(view.curve, curves),
      colour: known(
        view.colour,
        colours.map(({ name }) => name),
      ),
    };
    const isFirst = this.#shown.space === null;
    this.#tooltip.hide();
    this.#show(shown);
    if (isFirst && isOf(shown, this.#source.sketch)) {
      this.#map.sketch(this.#source.sketch.url);
    }
    if (view.middle === null ? isFirst : !samePlace(view.middle, this.#map.middle)) {
      this.#map.goTo(view.middle);
    }
    this.#applyFound(view);
    this.#applyPicked(view.picked);
  }

  #applyFound({ query, middle }) {
    if (query === null) {
      this.#query = null;
      this.#find.clear();
      this.#map.light(null);
    } else if (query !== this.#query) {
      this.#showFound(query, middle === null);
    }
  }

  #applyPicked(place) {
    if (place === null) {
      this.#picked = null;
      this.#panel.close();
      this.#map.ring(null);
    } else if (!samePlace(place, this.#picked)) {
      this.#openPlace(place);
    }
  }

  #show(shown) {
    const before = this.#shown;
    this.#shown = shown;
    for (const [name, value] of Object.entries(shown)) {
      byId(name).value = value;
    }
    if (Object.keys(shown).some((name) => shown[name] !== before[name])) {
      this.#draw();
      // By the time this is asked for, the map may have been moved to another zoom.
      queueMicrotask(() => this.#updateLegend());
    }
  }

  #draw() {
    const { spaces, labels } = this.#filesystem;
    const { space, curve } = this.#shown;
    this.#map.show(this.#shown, spaces[space].max_zoom, labels[space]?.[curve] ?? []);
  }

  async #choose(choice) {
    const shown = { ...this.#shown, ...choice };
    this.#tooltip.hide();
    const otherLine = shown.space !== this.#shown.space || shown.curve !== this.#shown.curve;
    const spot = otherLine ? await this.#sameSpot(shown) : null;
    if (otherLine) {
      this.#applyPicked(null);
    }
    this.#show(shown);
    if (spot !== null) {
      this.#map.goTo(spot);
    }
    if (otherLine && this.#query !== null) {
      this.#showFound(this.#query, false);
    }
    this.#remember();
  }

  /** Where the extent in the middle of the window lies in another space or on another curve. */
  async #sameSpot({ space, curve }) {
    const { target, middle, isClose } = this.#map;
    if (!this.#source.can.find || !isClose) {
      return null;
    }
    try {
      const { extent, group } = await this.#ask("at", target);
      const query = extent ? `vaddr ${extent.vaddr}` : group && `group ${group.vaddr}`;
      const found = query && (await this.#source.find(query, space, curve));
      return found?.view ? atZoom(found.view, middle.z) : null;
    } catch {
      // It is not that important: the map stays where it is.
      return null;
    }
  }

  #ask(what, { z, row, column }, signal) {
    const { space, curve } = this.#shown;
    return this.#source[what](space, curve, z, row, column, signal);
  }

  // The legend

  async #updateLegend() {
    clearTimeout(this.#legendTimer);
    this.#legendAbort.abort();
    this.#legendAbort = new AbortController();
    const { signal } = this.#legendAbort;
    this.#legendZoom = this.#map.zoom;
    try {
      const { space, colour } = this.#shown;
      const legend = await this.#source.legend(space, colour, this.#legendZoom, signal);
      if (!signal.aborted) {
        this.#legend.show(legend);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#legend.fail(errorWords(error));
      }
    }
  }

  /** Not more often than somebody could read it. */
  #updateLegendSoon() {
    clearTimeout(this.#legendTimer);
    this.#legendTimer = setTimeout(() => this.#updateLegend(), LEGEND_MS);
  }

  // The panel

  #pick(place) {
    this.#openPlace(place);
    this.#remember();
  }

  #pickMiddle() {
    this.#pick(this.#map.target);
    this.#panel.focus();
    return true;
  }

  #openPlace(place, refreshed = false) {
    const { can } = this.#source;
    const find = can.find ? (query) => this.#findAndGo(query) : null;
    const what = can.details ? "details" : "at";
    this.#picked = place;
    this.#map.ring(place);
    this.#panel.open(async (signal) => {
      try {
        const found = await this.#ask(what, place, signal);
        return placePage(found, this.#filesystem.generation, find);
      } finally {
        this.#checkDamageSoon();
      }
    }, refreshed);
    this.#tooltip.settle();
    if (!refreshed) {
      const { right, bottom } = this.#coveredByPanel();
      this.#map.reveal(place, right, bottom);
    }
  }

  /** How much of the right and bottom of the window the panel takes. */
  #coveredByPanel() {
    const { offsetWidth, offsetHeight } = byId("panel");
    if (!this.#panel.isOpen) {
      return { right: 0, bottom: 0 };
    }
    return SMALL_SCREEN.matches
      ? { right: 0, bottom: offsetHeight }
      : { right: offsetWidth, bottom: 0 };
  }

  #openFilesystem() {
    this.#applyPicked(null);
    this.#panel.open(async () => {
      await this.#readFilesystem();
      return filesystemPage(this.#filesystem);
    });
    this.#panel.focus();
    this.#tooltip.settle();
    this.#remember();
  }

  #closePanel() {
    const hadFocus = byId("panel").contains(document.activeElement);
    this.#applyPicked(null);
    if (hadFocus) {
      this.#map.focus();
    }
    this.#remember();
  }

  // Find

  async #findAndGo(query) {
    // The panel tells about the place that is left. Its button may have been what was pressed.
    const hadFocus = byId("panel").contains(document.activeElement);
    this.#applyPicked(null);
    if (hadFocus) {
      this.#map.focus();
    }
    const shown = this.#showFound(query, true);
    this.#remember();
    await shown;
  }

  async #showFound(query, fly, refreshed = false) {
    this.#query = query;
    if (!refreshed) {
      this.#tooltip.hide();
      this.#map.light(null);
    }
    const { space, curve } = this.#shown;
    const ask = (signal) => this.#source.find(query, space, curve, signal);
    const found = await this.#find.show(query, ask, refreshed);
    this.#checkDamageSoon();
    if (found !== undefined) {
      this.#map.light(found?.extents > 0 ? query : null);
    }
    if (fly && found?.view) {
      this.#flyTo(found.view);
    }
  }

  /** Move what was found into view; the card that tells about it may take the lower part. */
  #flyTo(place) {
    this.#map.flyTo(place, SMALL_SCREEN.matches ? byId("find-results").offsetHeight : 0);
  }

  #clearFound() {
    this.#query = null;
    this.#tooltip.hide();
    this.#find.clear();
    this.#map.light(null);
    this.#map.focus();
    this.#remember();
  }

  // The address of the page

  #moved() {
    if (this.#map.zoom !== this.#legendZoom && this.#shown.space !== null) {
      this.#updateLegendSoon();
    }
    clearTimeout(this.#rememberTimer);
    this.#rememberTimer = setTimeout(() => this.#write("replaceState"), REMEMBER_MS);
  }

  /** Let the address tell what the user has chosen. Back leads to what was there before. */
  #remember() {
    this.#write("pushState");
  }

  #write(method) {
    clearTimeout(this.#rememberTimer);
    const { middle } = this.#map;
    const view = { ...this.#shown, middle, query: this.#query, picked: this.#picked };
    const fragment = formatView(view);
    if (fragment !== location.hash) {
      history[method](null, "", fragment);
    }
  }

  #followAddress() {
    clearTimeout(this.#rememberTimer);
    this.#apply(parseView(location.hash));
  }

  // What happens to the filesystem

  #happened(event) {
    if (event.type === "lost") {
      this.notice("The connection to btrfs-atlas is lost. Trying again …");
    } else if (event.type === "gone") {
      this.notice("btrfs-atlas was started anew. Open the URL that it has printed.");
    } else if (event.type === "loaded") {
      this.#map.retry();
      this.#updateLegendSoon();
    } else {
      this.#catchUp(event);
    }
  }

  async #catchUp({ type }) {
    this.#tooltip.hide();
    try {
      await this.#readFilesystem(true);
    } catch (error) {
      this.notice(errorWords(error));
      return;
    }
    this.notice(null);
    if (type === "changed") {
      this.#map.flash();
    }
    if (this.#picked !== null) {
      this.#openPlace(this.#picked, true);
    }
  }

  /**
   * Learn anew what there is to know about the filesystem.
   *
   * @param {boolean} redrawn draw everything again, even if it seems to be as it was
   */
  async #readFilesystem(redrawn = false) {
    const before = this.#filesystem;
    const now = await this.#source.filesystem();
    this.#filesystem = now;
    this.#describe();
    if (redrawn || now.generation !== before.generation) {
      this.#redraw(before);
    }
  }

  /**
   * Tell of damage that was met while an answer was looked for, but not ask all the time. While it
   * is mounted, the kernel is asked, and what is damaged is its affair.
   */
  #checkDamageSoon() {
    if (this.#source.can.live && !this.#filesystem.mounted) {
      clearTimeout(this.#damageTimer);
      const wait = this.#damageAsked + DAMAGE_MS - performance.now();
      this.#damageTimer = setTimeout(() => this.#checkDamage(), Math.max(wait, 0));
    }
  }

  async #checkDamage() {
    this.#damageAsked = performance.now();
    try {
      await this.#readFilesystem();
    } catch {
      // It was not the user who asked. Whoever does ask is told what is wrong.
    }
  }

  #redraw(before) {
    const shape = ({ spaces, labels }) => JSON.stringify([spaces, labels]);
    if (shape(before) !== shape(this.#filesystem)) {
      this.#draw();
    }
    this.#map.refresh();
    this.#updateLegendSoon();
    // It may lie elsewhere now, or be gone.
    if (this.#query !== null) {
      this.#showFound(this.#query, false, true);
    }
  }
}

/** For tests, and for those who measure: how far the map is, and when it first came so far. */
function tellProgress(progress) {
  document.documentElement.dataset.tiles = progress;
  if (performance.getEntriesByName(progress).length === 0) {
    performance.mark(progress);
  }
}

function byId(id) {
  return document.getElementById(id);
}

function click(id, action) {
  byId(id).addEventListener("click", action);
}

function titled(name) {
  return { name, title: name };
}

/** Whether a sketch, if there is one, is a picture of what is shown. */
function isOf(shown, sketch) {
  return Object.entries(shown).every(([name, value]) => value === sketch?.[name]);
}

/** Fill a select; one that leaves no choice is not shown. */
function fillSelect(id, choices) {
  const select = byId(id);
  const options = choices.map(({ name, title }) =>
    el("option", { value: name }, capitalised(title)),
  );
  select.replaceChildren(...options);
  select.closest("label").hidden = choices.length < 2;
}

function known(name, names) {
  return names.includes(name) ? name : names[0];
}

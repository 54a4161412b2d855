// The keyboard: it works wherever the focus is, but for what the focused thing needs itself.

const TYPING = "input, select, textarea";
const SCROLLING = "#panel, #legend, #find-results, dialog";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 100;
const LONG_STEP = 400;

/**
 * @param {{onPan: function(number, number): void, onZoom: function(number): void,
 *          onWhole: function(): void, onFind: function(): void, onHelp: function(): void,
 *          onPick: function(): void, onEscape: function(): void}} handlers
 */
export function startKeys(handlers) {
  document.addEventListener("keydown", (event) => {
    if (handled(event, handlers)) {
      event.preventDefault();
    }
  });
}

function handled(event, handlers) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) {
    return false;
  }
  if (key === "Escape") {
    return handlers.onEscape();
  }
  if (target.closest(TYPING) !== null) {
    return false;
  }
  if (key in ARROWS) {
    return target.closest(SCROLLING) === null && pan(event, handlers);
  }
  const isMap = target.closest("#map") !== null;
  return key === "Enter" ? isMap && handlers.onPick() : pressed(key, handlers);
}

function pan({ key, shiftKey }, handlers) {
  const step = shiftKey ? LONG_STEP : STEP;
  handlers.onPan(...ARROWS[key].map((direction) => step * direction));
  return true;
}

function pressed(key, handlers) {
  const actions = {
    "+": () => handlers.onZoom(1),
    "=": () => handlers.onZoom(1),
    "-": () => handlers.onZoom(-1),
    0: () => handlers.onWhole(),
    "/": () => handlers.onFind(),
    "?": () => handlers.onHelp(),
  };
  actions[key]?.();
  return key in actions;
}

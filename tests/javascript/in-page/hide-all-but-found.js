/**
 * Leave nothing of the map but the marks on what was found.
 *
 * @param {boolean} isHidden false: show everything again
 */
export default (isHidden) => {
  /** @type {NodeListOf<HTMLElement>} */
  const panes = document.querySelectorAll(".leaflet-pane:not(.leaflet-map-pane)");
  for (const { classList, style } of panes) {
    style.visibility = isHidden && !classList.contains("leaflet-found-pane") ? "hidden" : "";
  }
};

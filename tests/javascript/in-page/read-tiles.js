/** The tiles on the screen: where each stands in the window, and its pixels as a PNG, base64. */
export default () => {
  /** @param {HTMLImageElement} image */
  const read = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d")?.drawImage(image, 0, 0);
    const { x, y } = image.getBoundingClientRect();
    return { x, y, png: canvas.toDataURL("image/png").split(",")[1] };
  };
  /** @type {NodeListOf<HTMLImageElement>} */
  const images = document.querySelectorAll(".leaflet-tile-pane img");
  return Array.from(images, read);
};

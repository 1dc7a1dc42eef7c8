"""An image in a notebook that says where it was clicked."""

from ..core.extras import extra

with extra("notebooks"):
    import traitlets
    from anywidget import AnyWidget

_SCRIPT = """
function render({ model, el }) {
  const image = document.createElement("img");
  image.alt = "the image; a click chooses a point";
  image.style.cssText = "min-width: 256px; max-width: 512px; cursor: crosshair";
  const draw = () => {
    image.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
  };
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * image.naturalWidth);
    const row = Math.floor(((event.clientY - box.top) / box.height) * image.naturalHeight);
    model.set("point", [
      Math.max(0, Math.min(column, image.naturalWidth - 1)),
      Math.max(0, Math.min(row, image.naturalHeight - 1)),
    ]);
    model.save_changes();
  });
  model.on("change:png", draw);
  draw();
  el.appendChild(image);
}
export default { render };
"""


class ClickImage(AnyWidget):
    """An image; `point` is the column and row of the pixel that was clicked last."""

    _esm = _SCRIPT
    png = traitlets.Bytes().tag(sync=True)
    point = traitlets.List([0, 0]).tag(sync=True)

"""Where the texts of a figure are drawn."""

from itertools import combinations


def is_within(position, limits):
    return min(limits) <= position <= max(limits)


def text_boxes(figure):
    """Return each text that is drawn, with its box in pixels."""
    figure.canvas.draw()
    texts = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in figure.axes:
        if axis.axison:
            texts += [axis.xaxis.label, axis.yaxis.label]
            for i, (labels, limits) in enumerate(
                (
                    (axis.get_xticklabels(), axis.get_xlim()),
                    (axis.get_yticklabels(), axis.get_ylim()),
                )
            ):
                texts += [label for label in labels if is_within(label.get_position()[i], limits)]
        texts += [axis.title, *axis.texts]
    return [
        (text.get_text(), text.get_window_extent())
        for text in texts
        if text.get_visible() and text.get_text().strip()
    ]


def overlaps(boxes):
    """Return the pairs of texts whose boxes overlap."""
    return [
        (text, other)
        for (text, box), (other, other_box) in combinations(boxes, 2)
        if min(box.x1, other_box.x1) - max(box.x0, other_box.x0) > 0.5
        and min(box.y1, other_box.y1) - max(box.y0, other_box.y0) > 0.5
    ]


def require_room(figure):
    """Check that no text lies on another or beyond the edge of the figure."""
    boxes = text_boxes(figure)
    assert boxes
    width, height = (
        (figure.bbox.x0 - 2, figure.bbox.x1 + 2),
        (figure.bbox.y0 - 2, figure.bbox.y1 + 2),
    )  # pixels
    for text, box in boxes:
        assert is_within(box.x0, width) and is_within(box.x1, width), text
        assert is_within(box.y0, height) and is_within(box.y1, height), text
    assert overlaps(boxes) == []

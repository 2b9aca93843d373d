"""Annotation files as the programs write them, for tests: points of pictures in each format."""

import csv
import json
import pathlib
from xml.sax.saxutils import quoteattr

import numpy as np
import scipy.io

SIZES = dict[str, tuple[int, int]]  # (height, width) of each picture
POINTS = dict[str, list[tuple[float, float]]]


def csv_table(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    with (folder / "heads.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "x", "y"])
        for name, some in points.items():
            writer.writerows([[name, *map(repr, point)] for point in some] or [[name, "", ""]])


def csv_spreadsheet(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    """With a byte order mark, semicolons, decimal commas, another order and one column more."""
    lines = ["Nr;Y;X;Image"]
    for name, some in points.items():
        rows = [f"{i};{y!r};{x!r}".replace(".", ",") for i, (x, y) in enumerate(some)] or ["0;;"]
        lines += [f"{row};{name}" for row in rows]
    (folder / "Table 1.csv").write_text("\n".join(lines), encoding="utf-8-sig")


def csv_each(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    for name, some in points.items():
        text = "".join(f"{x!r},{y!r}\n" for x, y in some)
        (folder / name).with_suffix(".csv").write_text(text)


def json_table(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    (folder / "points.json").write_text(json.dumps(points))


def json_each(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    for name, some in points.items():
        value = {"points": [{"x": x, "y": y} for x, y in some]}
        (folder / name).with_suffix(".json").write_text(json.dumps(value))


def page(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    """What the clicking page saves."""
    table = {
        name: {"width": sizes[name][1], "height": sizes[name][0], "finished": True, "points": some}
        for name, some in points.items()
    }
    (folder / "points (1).json").write_text(json.dumps(table, ensure_ascii=False), "utf-8")


def mat_shanghaitech(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    for name, some in points.items():
        info = np.empty((1, 1), object)
        one_based = np.reshape(some, (-1, 2)) + 1
        info[0, 0] = {"location": one_based, "number": np.array([[len(some)]])}
        stem = pathlib.Path(name).stem
        scipy.io.savemat(folder / f"GT_{stem}.mat", {"image_info": info})


def mat_plain(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    for name, some in points.items():
        one_based = np.reshape(some, (-1, 2)) + 1
        values = {"my_heads": one_based, "date": "today"}
        scipy.io.savemat((folder / name).with_suffix(".mat"), values)


def _coco(points: POINTS, sizes: SIZES, category: dict, annotation) -> str:
    images, annotations = [], []
    for i, (name, some) in enumerate(points.items()):
        height, width = sizes[name]
        images.append({"id": 10 + i, "file_name": name, "width": width, "height": height})
        annotations += [
            {"id": 1000 * i + j, "image_id": 10 + i, "category_id": 1, **annotation(x, y)}
            for j, (x, y) in enumerate(some)
        ]
    category = {"id": 1, "name": "person", **category}
    return json.dumps({"images": images, "annotations": annotations, "categories": [category]})


FACE = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder"]


def coco_key_points(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    """Persons with an invisible nose, two eyes beside the point, and a shoulder far away."""

    def annotation(x, y):
        values = [0, 0, 0, x - 1, y, 2, x + 1, y, 1, 0, 0, 0, 0, 0, 0, x + 30, y + 40, 2]
        return {"keypoints": values, "num_keypoints": 3, "bbox": [x - 9, y - 9, 50, 90]}

    (folder / "person_keypoints.json").write_text(
        _coco(points, sizes, {"keypoints": FACE}, annotation)
    )


def coco_boxes(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    (folder / "_annotations.coco.json").write_text(
        _coco(points, sizes, {}, lambda x, y: {"bbox": [x - 2, y, 4, 30], "iscrowd": 0})
    )


def yolo(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    (folder / "classes.txt").write_text("head\n")
    for name, some in points.items():
        height, width = sizes[name]
        lines = [f"0 {x / width!r} {(y + 4) / height!r} 0.01 {8 / height!r}\n" for x, y in some]
        (folder / name).with_suffix(".txt").write_text("".join(lines))


def labelme(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    for name, some in points.items():
        height, width = sizes[name]
        shapes = [{"label": "head", "points": [p], "shape_type": "point"} for p in some]
        value = {
            "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\{name}",
            "imageData": None, "imageHeight": height, "imageWidth": width,
        }  # fmt: skip
        (folder / name).with_suffix(".json").write_text(json.dumps(value))


def _via_regions(some) -> list[dict]:
    return [
        {
            "shape_attributes": {"name": "point", "cx": x, "cy": y},
            "region_attributes": {"type": "head"},
        }
        for x, y in some
    ]


def via_2_project(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    pictures = {
        f"{name}-1": {"filename": name, "size": -1, "regions": _via_regions(some)}
        for name, some in points.items()
    }
    value = {"_via_settings": {}, "_via_img_metadata": pictures, "_via_attributes": {}}
    (folder / "via_project.json").write_text(json.dumps(value))


def via_2_json(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    via_2_project(folder, points, sizes)
    path = folder / "via_project.json"
    value = json.loads(path.read_text())["_via_img_metadata"]
    path.rename(folder / "via_export_json.json").write_text(json.dumps(value))


def via_1_json(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    pictures = {
        f"{name}77": {
            "fileref": "", "size": 77, "filename": name, "base64_img_data": "",
            "file_attributes": {}, "regions": dict(enumerate(_via_regions(some))),
        }
        for name, some in points.items()
    }  # fmt: skip
    (folder / "via_region_data.json").write_text(json.dumps(pictures))


def _via_csv(path: pathlib.Path, first: str, points: POINTS) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(
            f"{first},file_size,file_attributes,region_count,region_id,region_shape_attributes,"
            "region_attributes\n"
        )
        writer = csv.writer(file)
        for name, some in points.items():
            regions = [
                [json.dumps(one["shape_attributes"]), json.dumps(one["region_attributes"])]
                for one in _via_regions(some)
            ]
            for i, region in enumerate(regions or [["{}", "{}"]]):
                writer.writerow([name, 77, "{}", len(some), i, *region])


def via_1_csv(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    _via_csv(folder / "via_region_data.csv", "#filename", points)


def via_2_csv(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    _via_csv(folder / "via_export_csv.csv", "filename", points)


def cvat(folder: pathlib.Path, points: POINTS, sizes: SIZES) -> None:
    """The first half of a picture's points in one shape, the others in one each."""
    parts = ['<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>']
    for i, (name, some) in enumerate(points.items()):
        height, width = sizes[name]
        named = quoteattr(f"task/{name}")
        parts.append(f'<image id="{i}" name={named} width="{width}" height="{height}">')
        half = len(some) // 2
        for group in [some[:half]] * bool(half) + [[point] for point in some[half:]]:
            values = ";".join(f"{x!r},{y!r}" for x, y in group)
            parts.append(f'<points label="head" occluded="0" z_order="0" points="{values}"/>')
        parts.append("</image>")
    (folder / "annotations.xml").write_text("".join(parts) + "</annotations>", encoding="utf-8")


# Each with the format's title, and whether it can say that a picture is without people.
WRITERS = {
    csv_table: ("points (CSV)", True),
    csv_spreadsheet: ("points (CSV)", True),
    csv_each: ("points (CSV)", True),
    json_table: ("points of this project (JSON)", True),
    json_each: ("points of this project (JSON)", True),
    page: ("points of this project (JSON)", True),
    mat_shanghaitech: ("MATLAB points, counted from 1", True),
    mat_plain: ("MATLAB points, counted from 1", True),
    coco_key_points: ("COCO (JSON)", False),
    coco_boxes: ("COCO (JSON)", False),
    yolo: ("YOLO boxes", True),
    labelme: ("LabelMe (JSON)", True),
    via_2_project: ("VGG Image Annotator (JSON)", False),
    via_2_json: ("VGG Image Annotator (JSON)", False),
    via_1_json: ("VGG Image Annotator (JSON)", False),
    via_1_csv: ("VGG Image Annotator (CSV)", False),
    via_2_csv: ("VGG Image Annotator (CSV)", False),
    cvat: ("CVAT for images (XML)", False),
}

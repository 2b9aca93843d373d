"""Which annotation of a user's folder belongs to which picture."""

from test_datasets_builders import draw, folder


def test_a_bare_name_in_a_table_means_one_picture(tmp_path):
    raw = tmp_path / "raw"
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        draw(raw / name)
    (raw / "points.csv").write_text("file,x,y\na/1.png,1,2\n1.png,5,6\n2.png,3,4\n")
    prepared = folder(raw, tmp_path)
    assert {record.id: record.points.tolist() for record in prepared.splits["train"]} == {
        "a/1.png": [[1, 2]],
        "b/2.png": [[3, 4]],
    }
    assert any("without annotation" in line and "b/1.png" in line for line in prepared.reports)


def test_the_file_of_the_clicking_page_is_a_table(tmp_path):
    raw = tmp_path / "raw"
    draw(raw / "a b.png")
    (raw / "points.json").write_text(
        '{"a b.png": {"width": 24, "height": 20, "finished": true, "points": [[1.5, 2]]}}'
    )
    prepared = folder(raw, tmp_path)
    assert prepared.splits["train"].points(0).tolist() == [[1.5, 2]]

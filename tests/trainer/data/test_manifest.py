"""Sources: manifests, globs, folders; and what is said about those that cannot be."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from patho_trainer import errors
from patho_trainer.data import manifest, storage


def discover(source, bucket=None):
    return manifest.discover([str(source)], bucket or storage.Bucket())


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")


def test_a_csv_names_slides_relative_to_itself_with_all_their_facts(tmp_path):
    text = "url,id,mpp,patient,label,weight,held_out\na.svs,one,0.25,p,tumour,2,yes\ngs://b/c.svs,,,,,,no\n"
    (tmp_path / "m.csv").write_text(text)
    entries, columns = discover(tmp_path / "m.csv")
    assert columns == ("held_out",)
    first = manifest.Entry("one", f"{tmp_path}/a.svs", None, 0.25, "tumour", "p", 2.0, frozenset({"held_out"}))
    assert entries == [first, manifest.Entry("gs://b/c.svs", "gs://b/c.svs")]


def test_a_parquet_manifest_is_read_as_a_csv_is(tmp_path):
    table = pa.table({"url": ["a.svs", "b.svs"], "mpp": [0.25, None], "held_out": [True, False]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    entries, _ = discover(tmp_path / "m.parquet")
    assert [(e.mpp, e.flags) for e in entries] == [(0.25, {"held_out"}), (0.0, set())]


def test_a_folder_gives_its_slides_and_a_glob_those_that_match(tmp_path):
    touch(tmp_path, "a.svs", "deep/b.TIFF", "notes.txt", "deep/c.svs")
    names = [e.url.removeprefix(f"{tmp_path}/") for e in discover(f"{tmp_path}/")[0]]
    assert names == ["a.svs", "deep/b.TIFF", "deep/c.svs"]
    assert len(discover(f"{tmp_path}/*.svs")[0]) == 1
    assert len(discover(f"{tmp_path}/**/*.svs")[0]) == 2


def test_a_dicom_folder_is_one_slide_and_mirax_counts_its_own_file(tmp_path):
    touch(tmp_path, "case/1.dcm", "case/2.dcm", "other/1.dcm", "m.mrxs", "m/Data0001.dat", "m/Slidedat.ini")
    urls = [e.url.removeprefix(f"{tmp_path}/") for e in discover(f"{tmp_path}/")[0]]
    assert urls == ["case/1.dcm", "m.mrxs", "other/1.dcm"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("empty/", "no slide found at .*empty/: check the path; a slide's name ends in one of .svs"),
        ("*.svs", r"no slide found at .*\*\.svs"),
        ("none.csv", "the manifest has no rows"),
        ("missing.csv", "missing.csv does not exist"),
        ("missing.svs", "missing.svs does not exist"),
    ],
)
def test_a_source_without_slides_is_data_not_found(tmp_path, source, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.csv").write_text("url\n")
    with pytest.raises(errors.DataNotFound, match=sentence):
        discover(f"{tmp_path}/{source}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,label\na,b\n", "needs a column `url`; it has path, label"),
        ("url,mpp\na.svs,fine\n", "row 1: `mpp` is 'fine': write a number above 0"),
        ("url,weight\na.svs,1\nb.svs,-2\n", "row 2: `weight` is '-2'"),
        ("url\na.svs\na.svs\n", "appears twice"),
        ("url,id\n,x\n", "row 1: `url` is empty"),
        ("\xff\xfe", "cannot be read|needs a column"),
    ],
)
def test_a_bad_manifest_is_an_invalid_configuration(tmp_path, text, sentence):
    (tmp_path / "m.csv").write_text(text, encoding="latin-1")
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        discover(tmp_path / "m.csv")


def test_a_web_server_cannot_be_listed(web):
    with pytest.raises(errors.InvalidConfiguration, match="cannot be listed: give a manifest"):
        discover(web.url + "slides/")


@pytest.mark.parametrize("url", ["file:///data/a.svs", "/data/a.svs"])
def test_a_manifest_in_a_bucket_names_no_files_of_the_machine_that_reads_it(url):
    with pytest.raises(errors.InvalidConfiguration, match=r"row 1: `url` .*/data/a.svs is a file of the machine .*: upload the slide"):
        manifest.entry({"url": url}, "gs://bucket/sets/", "manifest gs://bucket/sets/m.csv, row 1")
    assert manifest.entry({"url": url}, "/sets/", "here").url == url


def test_many_slides_of_a_manifest_in_one_folder_are_looked_up_by_one_listing(store, tmp_path):
    names = [f"slides/{number}.svs" for number in range(manifest.LISTED_FROM)]
    for number, name in enumerate(names):
        (tmp_path / "one").write_bytes(b"1" * (number + 1))
        store.put(tmp_path / "one", name)
    (tmp_path / "m.csv").write_text(
        "\n".join(["url", *(store.url + name for name in names), store.url + "slides/away.svs", store.url + "a.svs"])
    )
    source = store.put(tmp_path / "m.csv")
    bucket = store.bucket()
    entries = discover(source, bucket)[0]
    assert [e.info for e in entries] == [*(bucket.head(store.url + name) for name in names), None, None]
    assert [e.info and e.info.size for e in entries[:2]] == [1, 2]

#!/usr/bin/env bash
# mlcroissant 1.1.1: two fields found in the names of files by regular expressions, of which one references a field of an
# enumeration given as data (as Croissant 1.1 wants for splits and classes): reading the records fails, because the other
# expression is applied to what the first one found. Without the reference the same file is read.
# Makes a temporary folder, installs pinned packages there, runs them on a data set, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlcroissant==1.1.1 numpy==2.4.6 pandas==3.1.1
cd "$folder"
CROISSANT_CACHE=$folder/cache venv/bin/python - <<'PY' 2>/dev/null
import hashlib
import importlib.metadata
import io
import json
import tarfile

import mlcroissant

print("mlcroissant", importlib.metadata.version("mlcroissant"))
context = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "key": "cr:key",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "sc": "https://schema.org/",
    "source": "cr:source",
    "transform": "cr:transform",
}
with tarfile.open("data.tar", "w") as tar:
    for name in ("train-1.txt", "test-2.txt"):
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"text"))


def read(references):
    split = {
        "@type": "cr:Field", "@id": "all/split", "name": "all/split", "dataType": "sc:Text",
        "source": {"fileSet": {"@id": "texts"}, "extract": {"fileProperty": "filename"},
                   "transform": {"regex": "^(train|test)-"}},
        **({"references": {"field": {"@id": "splits/name"}}} if references else {}),
    }
    number = {
        "@type": "cr:Field", "@id": "all/number", "name": "all/number", "dataType": "sc:Integer",
        "source": {"fileSet": {"@id": "texts"}, "extract": {"fileProperty": "filename"},
                   "transform": {"regex": r"^[a-z]+-(\d)"}},
    }
    described = {
        "@context": context, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.1", "name": "set",
        "distribution": [
            {"@type": "cr:FileObject", "@id": "tar", "name": "tar", "contentUrl": "data.tar",
             "sha256": hashlib.sha256(open("data.tar", "rb").read()).hexdigest(), "encodingFormat": "application/x-tar"},
            {"@type": "cr:FileSet", "@id": "texts", "name": "texts", "containedIn": {"@id": "tar"},
             "encodingFormat": "text/plain", "includes": "*.txt"}],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "splits", "name": "splits", "dataType": "cr:Split",
             "key": {"@id": "splits/name"},
             "field": [{"@type": "cr:Field", "@id": "splits/name", "name": "splits/name", "dataType": "sc:Text"}],
             "data": [{"splits/name": "train"}, {"splits/name": "test"}]},
            {"@type": "cr:RecordSet", "@id": "all", "name": "all", "field": [split, number]}],
    }
    json.dump(described, open("croissant.json", "w"))
    return sorted((row["all/split"], row["all/number"]) for row in mlcroissant.Dataset("croissant.json").records("all"))


print("without a reference:", read(False))
try:
    found = read(True)
except Exception as error:
    print("with a reference to splits/name:", type(error).__name__, str(error)[:200])
else:
    print("with a reference to splits/name:", found)
    raise AssertionError("it is read now")
PY

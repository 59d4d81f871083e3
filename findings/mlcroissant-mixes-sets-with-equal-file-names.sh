#!/usr/bin/env bash
# mlcroissant 1.1.1: the cache of unpacked tars is keyed by contentUrl as it stands in the file; with relative names, which local
# data sets have, a second data set is read from the tar of the first, without a word. CROISSANT_CACHE for each set avoids it.
# Makes a temporary folder, installs pinned packages there, runs them on two data sets, fails if the behaviour changes.
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
from pathlib import Path

import mlcroissant

print("mlcroissant", importlib.metadata.version("mlcroissant"))
context = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
}


def write(name, text):
    root = Path(name)
    root.mkdir()
    with tarfile.open(root / "data.tar", "w") as tar:
        member = tarfile.TarInfo("a.txt")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    digest = hashlib.sha256((root / "data.tar").read_bytes()).hexdigest()
    (root / "croissant.json").write_text(json.dumps({
        "@context": context, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.1", "name": name,
        "distribution": [
            {"@type": "cr:FileObject", "@id": "tar", "name": "tar", "contentUrl": "data.tar", "sha256": digest,
             "encodingFormat": "application/x-tar"},
            {"@type": "cr:FileSet", "@id": "texts", "name": "texts", "containedIn": {"@id": "tar"},
             "encodingFormat": "text/plain", "includes": "*.txt"}],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "all", "name": "all", "field": [
            {"@type": "cr:Field", "@id": "all/text", "name": "all/text", "dataType": "sc:Text",
             "source": {"fileSet": {"@id": "texts"}, "extract": {"fileProperty": "content"}}}]}],
    }))
    return root / "croissant.json"


read = [[row["all/text"] for row in mlcroissant.Dataset(str(write(name, name.encode()))).records("all")]
        for name in ("first", "second")]
print("two sets, each with its own data.tar:", read)
assert read == [[b"first"], [b"first"]], "it keeps them apart now"
PY

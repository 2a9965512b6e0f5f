#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg's libavutil 60), Pillow 13.0.0, Python 3.11
#
# FFmpeg attaches the EXIF block of a JPEG frame as side data of a kind that PyAV's list of kinds does
# not have. One would guess that the kind is skipped or shown as a number. `frame.side_data` raises
# for every frame with it, so that nothing else in it can be read either, a display matrix included.
#
# Output:
#   without EXIF: 0 entries
#   with EXIF: ValueError: 31 is not a valid Type
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 pillow==13.0.0

cat > "$folder/try.py" <<'PYTHON'
import io

import av
from PIL import Image


def side_data(**options):
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG", **options)
    file.seek(0)
    with av.open(file) as video:
        frame = next(video.decode(video=0))
        try:
            return f"{len(frame.side_data)} entries"
        except ValueError as error:
            return f"ValueError: {error}"


exif = Image.Exif()
exif[0x0112] = 1  # orientation: upright
print("without EXIF:", side_data())
print("with EXIF:", side_data(exif=exif))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" | tee "$folder/out"
grep -qx "without EXIF: 0 entries" "$folder/out"
grep -qx "with EXIF: ValueError: 31 is not a valid Type" "$folder/out"

"""Process that decodes frames by GDCM, which aborts on some damaged files.

A script of its own, so that it starts without the package. Requests come on the standard input: the
number of a frame, the length of a DICOM file (two little-endian 8-byte integers), and the file.
Answers go to the standard output: 0 and an array as numpy writes it, or 1 and the text of an error,
each after its length.
"""

import io
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

_CLEARER = {
    "requires gdcm": "requires python-gdcm",
    "'NoneType' object has no attribute 'encode'": "returns nothing, as for damaged pixels",
}
REQUEST, ANSWER = struct.Struct("<qq"), struct.Struct("<bq")


def main() -> None:
    """Answer requests until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        frame, length = REQUEST.unpack(head)
        content = requests.read(length)
        answer = io.BytesIO()
        try:
            np.save(answer, decoded(content, frame), allow_pickle=False)
            status = 0
        except Exception as error:  # decoders of damaged files raise anything
            text = " ".join(str(error).split())
            for words, clearer in _CLEARER.items():
                text = text.replace(words, clearer)
            answer, status = io.BytesIO(text.encode()), 1
        answers.write(ANSWER.pack(status, len(answer.getvalue())) + answer.getvalue())
        answers.flush()


def decoded(content: bytes, frame: int) -> np.ndarray:
    """Return the samples of a frame."""
    import pydicom
    from pydicom.pixels import get_decoder, pixel_array

    header = pydicom.dcmread(io.BytesIO(content), force=True)
    syntax = header.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if "gdcm" not in decoder.available_plugins:
        try:
            return pixel_array(header, index=frame)
        except Exception as error:
            missing = ", ".join(decoder.missing_dependencies)
            raise ValueError(f"{error}; not installed: {missing or 'nothing known'}") from error
    if syntax == pydicom.uid.JPEGExtended12Bit and header.BitsStored > 8:
        return _extended(content).reshape(-1, header.Rows, header.Columns)[frame]
    return pixel_array(header, index=frame, decoding_plugin="gdcm")


def _extended(content: bytes) -> np.ndarray:
    """Decode JPEG Extended of 12 bits, which GDCM reads as a whole file only, uint16 [samples]."""
    import gdcm  # type: ignore[import-untyped]  # GDCM has no stubs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "extended.dcm"
        path.write_bytes(content)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        samples = reader.GetImage().GetBuffer() if reader.Read() else None
    if samples is None:
        raise ValueError("GDCM cannot decode the JPEG Extended pixels")
    return np.frombuffer(samples.encode("utf-8", "surrogateescape"), np.uint16)


if __name__ == "__main__":
    main()

"""The only room that opens media files (through PyAV): clips, sound, pictures, layers, crops, video files."""

from vocalface.media.clip import Clip, Frame, View, open_clip
from vocalface.media.crop import crop, over, paste_back, resize
from vocalface.media.image import decode_image, encode_image, read_image, write_image
from vocalface.media.layers import LayerWriter, read_layer
from vocalface.media.sound import read_pieces, read_sound, sound_seconds, write_sound
from vocalface.media.write import VideoWriter

__all__ = [
    "Clip", "Frame", "LayerWriter", "VideoWriter", "View", "crop", "decode_image", "encode_image", "open_clip",
    "over", "paste_back", "read_image", "read_layer", "read_pieces", "read_sound", "resize", "sound_seconds",
    "write_image", "write_sound",
]  # fmt: skip

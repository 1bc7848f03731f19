"""The live demo: ``python demo.py`` opens the camera, ``python demo.py clip.mp4`` a video.

It is `faceattr live`; ``python demo.py --help`` tells its options, key h its keys.
"""

import sys

from faceattr.cli import main

if __name__ == "__main__":
    sys.exit(main(["live", *sys.argv[1:]]))

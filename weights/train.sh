#!/bin/sh
# Makes faceattr.keras. Expects fer2013/ and utkface/ here: the unpacked data sets, each with its
# class folders or file names under train/ and val/ (or a manifest.csv).
faceattr train expression=fer2013 gender=utkface -o faceattr.keras \
  --weights none --epochs scratch=10 --batch-size 128 --mix expression=3,gender=1 \
  --label-smoothing 0.1 --dropout 0.3 --seed 0 \
  --licence "research and non-commercial use only, as UTKFace's terms ask"

"""SadTalker: one portrait and a voice become a talking video.

Zhang et al., *SadTalker: Learning Realistic 3D Motion Coefficients for Stylized Audio-Driven Single Image Talking Face
Animation*, CVPR 2023. `PAPER.md` says where each of its parts lives.
"""

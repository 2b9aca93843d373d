"""Head points of annotation programs, to a folder that the data set point_folder reads."""

"""Raw files of a data set, unpacked once into a cache folder."""

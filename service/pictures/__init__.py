"""Drawing pictures: figures from numbers, without HTTP. The extra ``plots`` brings Matplotlib."""

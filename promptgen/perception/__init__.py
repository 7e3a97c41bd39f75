"""Off-the-shelf models that read images. Labels of people are perceived labels, as defined by the models' authors."""

"""Off-the-shelf models that look at images. Labels of people are perceived labels, as the models' authors give them."""

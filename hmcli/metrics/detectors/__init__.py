"""What finds the subjects of a video: frames -> boxes, scores and, where the network knows them, masks."""

"""One self-contained page of what was said of images, to show and to keep: pictures, charts, words, facts."""

"""Commands that run something: a function, an image, a job."""

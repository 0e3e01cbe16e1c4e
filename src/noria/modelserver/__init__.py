"""One process that serves one local model version: `python -m noria.modelserver`.

Speaks MLflow's scoring wire for MLflow models, with batching, the OpenAI wire for GGUF files, and for a prompt version
whichever of the two it is for. It listens only once the model is loaded and warm, so whoever gets a connection gets an
answer. For a command of the project file it is the parent that watches over it.
"""

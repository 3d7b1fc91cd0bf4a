"""Methods that the tables compare the model of CLEVR scenes with; `discovery.py` trains and runs them."""

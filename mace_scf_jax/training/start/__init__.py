"""Training that starts from another model: fine-tuning, and charges for models without any.

The backbone of the new model is that of the start model, for the elements of the data. Within one
family everything is taken over; in another family the charges are new, and begin small.
"""

"""How far can the batch of a Transformer grow, and what does it cost?"""

"""`uplift doctor`: what is wrong with a deployment, and what to do. Reads; changes nothing.

Each module looks at one part: a function that fetches facts, and pure ones that judge them.
"""

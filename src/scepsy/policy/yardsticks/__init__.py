"""Dispatchers to compare with: what others do or published, rebuilt from their descriptions.

``docs/reference/yardsticks`` has a page for each: what was taken, and what had to be assumed.
"""

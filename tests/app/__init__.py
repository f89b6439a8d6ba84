"""Which app would a user write?"""

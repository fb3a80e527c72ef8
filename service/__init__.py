"""HTTP in, JSON and pictures out. Starts without torch and without ray.

Each domain is a folder: `endpoints` parse a request and answer it, `schemas` are the answers.
What is done lives in `store`, whose operations run inside one transaction per request.
"""

FROM python:3.11-slim
# The official image leaves the compiled files out; without them every start would compile what it imports.
RUN ["python3", "-m", "compileall", "-q", "-j", "0", "/usr/local/lib/python3.11"]
CMD ["python3"]
